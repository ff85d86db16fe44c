# Each target is one plain command that can be typed without make.
#   ENV=   the environment: a folder of infra/ansible/inventory/ (local unless said)
#   ARGS=  passed on to Ansible: ARGS="--limit web --check --diff"

ENV ?= local
ARGS ?=
BIN := .venv/bin
ANSIBLE := infra/ansible
INVENTORY := $(ANSIBLE)/inventory/$(ENV)
PLAYBOOK = $(BIN)/ansible-playbook -i $(INVENTORY)
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" UV_SYSTEM_CERTS=true $(BIN)/uv pip compile --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url -q

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: requirements/install.sh requirements/uv.txt requirements/control.txt
	@requirements/install.sh

.PHONY: lock
lock: .venv/ready ## compile the hash-pinned locks from pyproject.toml (UPGRADE=1 takes newer versions)
	$(LOCK) pyproject.toml --extra uv -o requirements/uv.txt $(if $(UPGRADE),--upgrade)
	$(LOCK) pyproject.toml --extra app -o requirements/app.txt $(if $(UPGRADE),--upgrade)
	$(LOCK) runtime/pyproject.toml --extra websocket -c requirements/app.txt -o requirements/runtime.txt
	$(LOCK) pyproject.toml --extra app --extra control --extra uv -c requirements/app.txt -o requirements/control.txt $(if $(UPGRADE),--upgrade)
