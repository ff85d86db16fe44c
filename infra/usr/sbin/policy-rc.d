#!/bin/sh
# Installed by Pergola's role postgresql.
# Asked by packages' scripts before they act on a service (invoke-rc.d(8), deb-systemd-invoke); 101 forbids, 0 allows.
# PostgreSQL's package stops the server for as long as its files are replaced, which is an outage of seconds:
# restart-outdated restarts it afterwards. To remove the package, stop the server first.
case "$1 $2" in
    "postgresql@"*" stop" | "postgresql@"*" restart") exit 101 ;;
esac
exit 0
