"""`make cloud-init`: a server that got its user data at its first boot is open to `make converge`.

Debian 13's own cloud-init judges the file and does what it says.
"""

import subprocess
import sys

from waiting import wait_until

# The seed stands in for a cloud's. The machine keeps its address and host keys, by which the test knows it.
BOOT = """set -e
apt-get -q update
apt-get -qy --no-install-recommends install cloud-init
printf 'network: {config: disabled}\\nssh_deletekeys: false\\n' > /etc/cloud/cloud.cfg.d/99-test.cfg
mkdir -p /var/lib/cloud/seed/nocloud
printf 'instance-id: first\\n' > /var/lib/cloud/seed/nocloud/meta-data
cat > /var/lib/cloud/seed/nocloud/user-data
cloud-init schema --config-file /var/lib/cloud/seed/nocloud/user-data
(sleep 1; systemctl reboot) >/dev/null 2>&1 &
"""


def user_data(server):
    program = [sys.executable, "-m", "pergola", "cloud-init", server.inventory]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_converge_comes_in_by_what_cloud_init_made(server):
    # a bootstrap user that nobody made: only the operator's door can be the one
    server.settings(site_operator_keys=[f"{server.key}.pub"], site_bootstrap_user="nobody-made-me")
    assert "Permission denied" in server.answers("ops").stderr
    done = subprocess.run(
        ["ssh", *server.reach(), f"root@{server.address}", BOOT],
        input=user_data(server),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid schema" in done.stdout
    wait_until(lambda: server.answers("ops", "sudo -n true").returncode == 0, "the operator's login")
    server.works("site", "--tags", "base")
    assert server.answers("ops", "sudo -n true").returncode == 0
    assert "Permission denied" in server.answers("root").stderr
