import socket
import ssl

import pytest
from cryptography import x509


@pytest.fixture
def connect(settings):
    def open_one(context, name=None):
        place = settings["site_domain"], settings["nginx_public_port"]
        with (
            socket.create_connection(place, 10) as plain,
            context.wrap_socket(plain, server_hostname=name or settings["site_domain"]) as secure,
        ):
            return secure.version(), secure.getpeercert(binary_form=True)

    return open_one


def only(version, authority):
    context = ssl.create_default_context(cafile=authority)
    # OpenSSL itself refuses the old versions at its usual level, and the server's word is wanted
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    context.minimum_version = version
    return context


@pytest.mark.parametrize(("version", "name"), [("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")])
def test_current_versions_of_tls_are_spoken(connect, authority, version, name):
    assert connect(only(ssl.TLSVersion[version], authority))[0] == name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_broken_versions_of_tls_are_refused_by_the_server(connect, authority, version):
    """The alert comes from the other side: this one would have spoken it."""
    with pytest.raises(ssl.SSLError, match=r"ALERT_PROTOCOL_VERSION|alert protocol version"):
        connect(only(ssl.TLSVersion[version], authority))


def test_the_certificate_is_for_this_site_and_no_other(connect, tls):
    _, certificate = connect(tls)
    names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(tls, "other.example.org")


def test_the_certificate_covers_every_name(connect, tls, settings):
    for name in settings["app_domains"]:
        assert connect(tls, name)[0]
