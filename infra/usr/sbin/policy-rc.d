#!/bin/sh
# Installed by Pergola's role postgresql.
# Run by packages' scripts before they act on a service (invoke-rc.d(8), deb-systemd-invoke); 101 forbids, 0 allows.
# PostgreSQL's package would stop the server while its files are replaced, an outage of seconds; instead
# restart-outdated restarts it afterwards. To remove the package, stop the server first.
case "$1 $2" in
    "postgresql@"*" stop" | "postgresql@"*" restart") exit 101 ;;
esac
exit 0
