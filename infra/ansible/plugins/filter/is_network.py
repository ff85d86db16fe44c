"""``is_network``: whether a text is an IP address or a network (203.0.113.7, 2001:db8::/32)."""

from ipaddress import ip_network


def is_network(text):
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


class FilterModule:
    def filters(self):
        return {"is_network": is_network}
