"""A fresh server that answers as root: how the operator's door opens, the others shut, and secrets are born.

Real servers begin so. The machine stands in for one: its inventory here names an address and a key.
"""

import subprocess


def test_another_release_of_debian_is_refused_before_anything_is_changed(server):
    """A server's, or a box's of Vagrant."""
    server.settings(site_operator_keys=[f"{server.key}.pub"])
    files = "/usr/lib/os-release /etc/debian_version"
    older = f"tar -cf /root/release.tar {files} && sed -i 's/13/12/; s/trixie/bookworm/' {files}"
    assert server.answers("root", older).returncode == 0
    try:
        said = server.refuses("site")
    finally:
        assert server.answers("root", "tar -C / -xf /root/release.tar").returncode == 0
    assert said.startswith("one runs Debian 12")
    assert said.endswith("install Debian 13 (trixie) there or name another host")


def test_a_key_that_nobody_here_has_leaves_the_old_door_open(server, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "lost"], check=True)
    server.settings(site_operator_keys=[str(tmp_path / "lost.pub")])
    done = server.play("site", "--tags", "base")
    assert done.returncode != 0
    assert "could not log in to one by a second connection" in done.stdout
    assert "sshd's old rules are restored" in done.stdout
    assert server.answers("root").returncode == 0
    assert server.answers("root", "ls /etc/ssh/sshd_config.d").stdout.split() == []


def test_the_first_converge_makes_the_operator_and_shuts_root_out(server):
    assert server.answers("root").returncode == 0
    server.settings(site_operator_keys=[f"{server.key}.pub"])
    server.works("site", "--tags", "base")
    assert server.answers("ops", "sudo -n true").returncode == 0
    assert "Permission denied" in server.answers("root").stderr
    # root's door is shut, so this one came as the operator
    assert server.works("site", "--tags", "base").changed == 0


def test_secrets_are_born_encrypted_where_a_vault_password_is_configured(server):
    assert server.secrets.read_text().startswith("$ANSIBLE_VAULT;")
    assert server.secrets.stat().st_mode & 0o777 == 0o600
    assert server.secrets.parent.stat().st_mode & 0o777 == 0o700
    before = server.secrets.read_text()
    server.works("site", "--tags", "base")
    assert server.secrets.read_text() == before


def test_a_second_operator_without_the_secrets_is_refused(server):
    """The server has them already; new ones would lock the application out of its data."""
    server.works("site", "--tags", "base,secrets")
    aside = server.secrets.rename(server.secrets.with_suffix(".aside"))
    try:
        said = server.refuses("site", "--tags", "base")
        assert "secrets.yml lacks authority_key, database_password, django_key, redis_password" in said
        assert not server.secrets.exists()
    finally:
        aside.rename(server.secrets)
