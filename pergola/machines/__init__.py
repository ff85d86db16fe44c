"""Make, boot and remove Debian machines with systemd-nspawn. The role `machines` calls it as root.

It needs the standard library only, so that it also runs from a checkout that has no environment yet:
`python3 -m pergola.machines`.

STATE/machines.json is the record (id, network, addresses), STATE/machines/<name>/root a machine's files.
There is no pid file: a machine runs if the control group that is named after the record's random id contains
its supervisor. A network is claimed by creating its bridge, whose alias holds that id and the value of
net.ipv4.ip_forward before the first bridge. So nothing that a crash or a reboot leaves is out of date.
"""
