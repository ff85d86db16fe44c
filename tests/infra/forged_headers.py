"""What a client may forge: headers that frameworks, middleware, proxies and single sign-on set or trust.

With other spellings of some. The names do not come from the role's list, so that tests find what it lacks.
"""

from wsgiref.headers import Headers

FORGED_NAMES = """
Mail Uid Cn Sn Surname Ou MemberOf EmployeeNumber Pairwise-Id Subject-Id OIDC-Claim-Upn OIDC-Claim-Oid
OIDC-Claim-Nickname OIDC-Access-Token-Expires OIDC-Refresh-Token X-Pomerium-Claim-Sub
X-Pomerium-Claim-Preferred-Username X-Pomerium-Claim-Roles X-MS-Forwarded-Client-Cert X-Forwarded-Script-Name
Mellon-Name-Id X-Mellon-Name-Id X-GeoIP-Country X-GeoIP-City X-Authelia-User X-Authelia-Groups
Shib-Session-Expires X-External-Host
X-Forwarded-For X-Forwarded-Proto X-Request-ID Forwarded Via X-Forwarded X-Forwarded-By X-Forwarded-Host
X-Forwarded-Port X-Forwarded-Server X-Forwarded-Prefix X-Forwarded-Scheme X-Forwarded-Protocol
X-Forwarded-Ssl X-Forwarded-Https X-Forwarded-Path X-Forwarded-Uri X-Forwarded-Url X-Forwarded-Method
X-Forwarded-Context X-Forwarded-Client-IP X-Forwarded-For-Original X-Original-Forwarded-For
X-Originally-Forwarded-For X-Originally-Forwarded-Proto X-Forward-For X-Forwarder-For Forwarded-For
Forwarded-For-IP Forwarded-Proto Forwarded-Host Z-Forwarded-For X-Real-IP Real-IP X-Real-Port
X-Real-Client-IP X-RealIP X-Client-IP X-ClientIP Client-IP X-Client-Host X-Client-Port X-Cluster-Client-IP
Cluster-Client-IP X-Remote-Addr X-Remote-IP X-Remote-Host X-Remote-Port Remote-Addr Remote-IP Remote-Host
X-Originating-IP X-Original-Remote-Addr X-Source-IP X-ProxyUser-IP X-User-IP X-True-Client-IP
X-Custom-IP-Authorization Proxy-Client-IP WL-Proxy-Client-IP WL-Proxy-Client-Cert WL-Proxy-SSL
X-Bluecoat-Via X-Scheme X-Url-Scheme Url-Scheme X-Proto X-HTTPS HTTPS X-SSL Front-End-Https X-Host
X-HTTP-Host-Override X-Original-Host X-Original-URL X-Original-URI X-Original-Method X-Original-Proto
X-Original-Scheme X-Rewrite-URL X-Script-Name Script-Name Path-Info X-Proxy-URL X-Base-Path X-Replaced-Path
X-Ingress-Path X-Request-Uri X-VHM-Host Disguised-Host X-Accel-Mapping X-Sendfile-Type X-Request-Start
X-Queue-Start Proxy Remote-User X-Remote-User AuthUser Auth-User X-Auth-User X-Authenticated-User
Authenticated-User X-User X-Username X-User-Name X-User-Email X-User-Groups X-User-Roles X-Userinfo X-User-Id
X-UserID X-Auth-User-Id X-Email X-Remote-Username X-Hasura-User-Id X-Hasura-Role
X-Proxy-User X-Proxy-Remote-User Proxy-Remote-User X-WebAuth-User X-WebAuth-Email X-WebAuth-Name
X-WebAuth-Login X-WebAuth-Groups X-WebAuth-Role X-WebAuth-Fullname X-WebAuth-Tailnet Remote-User-Email
Remote-User-Group Remote-User-Groups Remote-User-First-Name Remote-User-Last-Name X-Remote-User-Email
X-Remote-User-Group X-Remote-User-Groups Remote-Groups Remote-Group Remote-Name Remote-Email X-Remote-Group
X-Remote-Groups X-Remote-Name X-Remote-Email X-Remote-Extra-Scopes X-Forwarded-User X-Forwarded-Email
X-Forwarded-Groups X-Forwarded-Preferred-Username X-Forwarded-Access-Token X-Forwarded-Id-Token
X-Forwarded-Roles X-Forwarded-Username X-Forwarded-Name X-Forwarded-Remote-User X-Auth-Request-User
X-Auth-Request-Email X-Auth-Request-Groups X-Auth-Request-Preferred-Username X-Auth-Request-Access-Token
X-Auth-Request-Redirect Gap-Auth Gap-Signature X-Auth-Audience X-Auth-Email X-Auth-ExpiresIn X-Auth-Groups
X-Auth-Roles X-Auth-Subject X-Auth-Userid X-Auth-Username X-authentik-username X-authentik-groups
X-authentik-entitlements X-authentik-email X-authentik-name X-authentik-uid X-authentik-jwt
X-authentik-meta-jwks X-authentik-meta-outpost X-authentik-meta-provider X-authentik-meta-app
X-authentik-meta-version OIDC-Claim-Sub OIDC-Claim-Email OIDC-Claim-Name OIDC-Claim-Preferred-Username
OIDC-Claim-Groups OIDC-Access-Token OIDC-Id-Token OIDC-Userinfo-Json Shib-Session-ID Shib-Identity-Provider
Shib-Application-ID Shib-Authentication-Instant Shib-AuthnContext-Class Eppn Affiliation
Unscoped-Affiliation Entitlement Persistent-Id Targeted-Id CAS-User SM-User SM-UserDN SM-UniversalID
SM-ServerSessionID IV-User IV-Groups IV-Creds OAM-Remote-User OAM-Remote-User-Groups Osso-User-Dn
X-Vouch-User X-Vouch-IdP-AccessToken X-Vouch-IdP-IdToken X-Vouch-IdP-Claims-Email X-Vouch-IdP-Claims-Groups
X-Pomerium-Jwt-Assertion X-Pomerium-Claim-Email X-Pomerium-Claim-User X-Pomerium-Claim-Groups
X-Pomerium-Claim-Name Teleport-Jwt-Assertion Tailscale-User-Login Tailscale-User-Name
Tailscale-User-Profile-Pic Tailscale-App-Capabilities X-Consumer-ID X-Consumer-Custom-ID X-Consumer-Username
X-Consumer-Groups X-Credential-Identifier X-Credential-Username X-Anonymous-Consumer X-Authenticated-Scope
X-Authenticated-Userid X-Authenticated-Groups X-JWT-Assertion X-Forwarded-Client-Cert
X-Forwarded-Tls-Client-Cert X-Forwarded-Tls-Client-Cert-Info Client-Cert Client-Cert-Chain X-Client-Cert
X-Client-Certificate X-Client-Certificate-Verification X-Client-Verify X-Client-DN X-SSL-Cert
X-SSL-Client-Cert X-SSL-Client-Verify X-SSL-Client-DN X-SSL-Client-CN X-SSL-Client-S-DN X-SSL-Client-I-DN
X-SSL-Client-Serial X-SSL-Client-SHA1 X-SSL-Client-Fingerprint X-SSL-Client-Subject-DN
X-SSL-Client-Issuer-DN X-SSL-Issuer SSL-Client-Cert SSL-Client-Verify SSL-Client-Subject-DN
SSL-Client-Issuer-DN SSL-Client-S-DN SSL-Client-I-DN SSL-Client-Serial X-Amzn-Oidc-Data X-Amzn-Oidc-Identity
X-Amzn-Oidc-Accesstoken X-Amzn-Mtls-Clientcert X-Amzn-Mtls-Clientcert-Leaf X-Amzn-Mtls-Clientcert-Subject
X-Amzn-Mtls-Clientcert-Issuer X-Amzn-Mtls-Clientcert-Serial-Number X-Amzn-Mtls-Clientcert-Validity
X-Amzn-Request-Context X-Amzn-Lambda-Context X-Amzn-Tls-Version X-Amzn-Tls-Cipher-Suite X-Apigateway-Event
X-Apigateway-Context CloudFront-Viewer-Address CloudFront-Viewer-Country CloudFront-Viewer-City
CloudFront-Viewer-ASN CloudFront-Viewer-TLS CloudFront-Viewer-JA3-Fingerprint CloudFront-Forwarded-Proto
X-MS-Client-Principal X-MS-Client-Principal-Id X-MS-Client-Principal-Idp X-MS-Client-Principal-Name
X-MS-Token-AAD-Access-Token X-MS-Token-AAD-Id-Token X-MS-Token-AAD-Refresh-Token X-Azure-ClientIP
X-Azure-SocketIP X-Azure-FDID X-FD-HealthProbe X-ARR-ClientCert X-ARR-SSL X-AppService-Proto
X-WAWS-Unencoded-URL X-Goog-Authenticated-User-Email X-Goog-Authenticated-User-Id X-Goog-Iap-Jwt-Assertion
X-Google-Real-IP X-Appengine-User-IP X-Appengine-Remote-Addr X-Appengine-User-Email X-Appengine-User-Id
X-Appengine-User-Is-Admin X-Appengine-Cron X-Appengine-QueueName X-Appengine-Inbound-Appid X-Appengine-Https
X-Appengine-Country X-CloudScheduler X-CloudTasks-QueueName X-CloudTasks-TaskName X-Endpoint-API-UserInfo
X-Apigateway-Api-Userinfo X-Client-Geo-Location X-Client-Cert-Present X-Client-Cert-Chain-Verified
X-Client-Cert-Error X-Client-Cert-Hash X-Client-Cert-Leaf X-Client-Cert-Serial-Number X-Client-Cert-SPIFFE
X-Client-Cert-URI-SANs X-Client-Cert-DNSName-SANs X-Client-Cert-Subject-DN X-Client-Cert-Issuer-DN
CF-Connecting-IP CF-Connecting-IPv6 CF-Pseudo-IPv4 CF-IPCountry CF-IPCity CF-Visitor CF-Worker
CF-Verified-Bot CF-Bot-Score CF-Access-Authenticated-User-Email CF-Access-Jwt-Assertion
CF-Client-Cert-SHA256 True-Client-IP Fastly-Client-IP Fastly-Client Fastly-SSL Fastly-FF Fastly-Temp-XFF
Akamai-Client-IP X-Akamai-Edgescape Akamai-Origin-Hop X-Akamai-Client-IP Akamai-Bot Fly-Client-IP
Fly-Forwarded-Proto Fly-Forwarded-Port Fly-Forwarded-SSL Fly-Region Fly-Src X-Vercel-Forwarded-For
X-Vercel-Proxied-For X-Vercel-IP-Country X-Vercel-IP-City X-Vercel-OIDC-Token X-Vercel-Proxy-Signature
X-NF-Client-Connection-IP X-NF-Geo X-NF-Sign X-BB-IP DO-Connecting-IP Ali-CDN-Real-IP CDN-Src-IP CDN-Real-IP
X-CDN-Src-IP EO-Connecting-IP EO-Client-IP Incap-Client-IP X-Sucuri-ClientIP X-Sucuri-Country
DDG-Connecting-IP AR-Real-IP X-Envoy-External-Address X-Envoy-Internal X-Envoy-Original-Path
X-Envoy-Original-Dst-Host X-Envoy-Peer-Metadata X-Envoy-Downstream-Service-Cluster
X-Envoy-Decorator-Operation X-Istio-Attributes L5d-Client-Id L5d-Remote-IP X_Forwarded_For X_Forwarded-For
X-Forwarded_For X_Forwarded_Proto X_Forwarded_Host X_Forwarded_User X_Request_ID X_Real_IP X_Client_IP
Client_IP Remote_User Remote_Addr X_Remote_User Remote_Groups Auth_User Script_Name Path_Info X_Script_Name
X_Auth_Request_User X_Auth_Request_Email SSL_Client_Verify SSL_Client_S_DN X_SSL_Client_Verify
OIDC_CLAIM_sub SM_USER X_Original_URL CF_Connecting_IP True_Client_IP X_Forwarded_Client_Cert HTTPS_
_Remote_User X.Forwarded.For X.Forwarded.Proto X.Real.IP Remote.User X-Forwarded.Host
"""
# Each twice, as a proxy may remove only the first.
FORGED = Headers(
    [
        (name, "203.0.113.99" if name == "X-Forwarded-For" else "evil")
        for name in FORGED_NAMES.split()
        for _ in range(2)
    ]
)
