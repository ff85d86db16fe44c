"""A checkout or a state directory may be called as people call directories, with spaces and quotes."""

import json
import os
import re
import socket
import subprocess
import sys
import threading

import pytest


def login(env, **places):
    """The words by which the control machine logs in to an environment's host."""
    command = [sys.executable, "-m", "pergola", "settings", env, "host_login"]
    done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def local(tmp_path):
    states = tmp_path / "it's mine"
    (states / "local").mkdir(parents=True)
    (states / "local/machines.json").write_text(json.dumps({"addresses": {"app": "127.0.0.1"}}))
    return states / "local/known_hosts", login("local", PERGOLA_STATE=str(states))


@pytest.fixture
def vagrant(tmp_path):
    machine = tmp_path / "it's mine/machines/app/libvirt"
    machine.mkdir(parents=True)
    (machine / "private_key").touch(mode=0o600)
    return machine / "known_hosts", login("vagrant", VAGRANT_DOTFILE_PATH=str(tmp_path / "it's mine"))


@pytest.mark.parametrize("env", ["local", "vagrant"])
def test_ssh_looks_for_host_keys_in_the_one_file_that_is_meant(env, request):
    """It takes words for several files, so ssh itself is asked, by a server that only greets."""
    file, words = request.getfixturevalue(env)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def greet():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-greeting\r\n")
                connection.recv(1000)

        greeter = threading.Thread(target=greet)
        greeter.start()
        here = ["-o", "HostName=127.0.0.1", "-o", f"Port={server.getsockname()[1]}"]
        done = subprocess.run(
            [*words[:-1], *here, "-v", words[-1], "true"], capture_output=True, text=True, check=False
        )
        greeter.join()
    looked = re.findall(r"load_hostkeys: fopen (.*): No such file", done.stderr)
    assert looked[0] == str(file)
    assert not [path for path in looked if path.startswith("mine")]
