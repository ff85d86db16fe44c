# Each target is one plain command that can be typed without make.
#   ENV=    the environment: a folder of infra/ansible/inventory/ (default: local)
#   HOST=   one host of it, for ssh, logs and status (default: the first)
#   ARGS=   passed on to Ansible or pytest: ARGS="--limit web --check --diff"

ENV ?= local
ARGS ?=
BIN := .venv/bin
PLAYBOOK = $(BIN)/ansible-playbook -i infra/ansible/inventory/$(ENV)
SETTING = $(BIN)/pergola settings $(ENV)
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" UV_SYSTEM_CERTS=true $(BIN)/uv pip compile --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url -q $(if $(UPGRADE),--upgrade)
# by a shell on the host, which interprets quotes and accepts an empty command
DEMO = $(BIN)/pergola ssh $(ENV) web sudo app-run sh -c "$$($(SETTING) app_demo)"
# runs parts of the tests in parallel, and records which passed
PROOF = $(BIN)/python -m tests.proof
# with it every start of Ansible or Django compiles all modules again and takes three times as long
unexport PYTHONDONTWRITEBYTECODE
# asks for sudo's password only if sudo needs one
BECOME = $(shell [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass)

.DEFAULT_GOAL := help
.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nENV=%s names the environment, ARGS="..." goes to Ansible or pytest.\n' "$(ENV)"

.venv/ready: requirements/install.sh requirements/uv.txt requirements/control.txt
	@requirements/install.sh

.PHONY: environment
environment: .venv/ready
	@$(SETTING) environment_name >/dev/null

##@ The sample application alone
.PHONY: dev
dev: .venv/ready ## run it on SQLite, without any service; reloads on changes (PORT=8000)
	@PORT=$(PORT) $(BIN)/python app/dev.py

##@ A production replica on this machine
.PHONY: doctor up down
doctor: environment ## show what this machine can run, by make up and by each Vagrant provider, and what it lacks
	@$(BIN)/pergola doctor $(ENV) $(ARGS)

up: environment ## make and build machines, deploy the application, print the URL
	@$(PLAYBOOK) infra/ansible/up.yml $(BECOME) $(ARGS)
	@$(PLAYBOOK) infra/ansible/site.yml infra/ansible/deploy.yml $(ARGS)
	@$(DEMO)
	@printf '\n  %s\n  certificate authority: %s\n\n' "$$($(SETTING) site_url)" "$$($(SETTING) secrets_authority_certificate)"

down: environment ## remove those machines and their data
	@$(PLAYBOOK) infra/ansible/down.yml $(BECOME) $(ARGS)

##@ Servers
.PHONY: converge provision deploy rollback releases maintenance-on maintenance-off verify new-env new-app cloud-init
converge: environment ## build the servers of ENV; a second run changes nothing
	@$(PLAYBOOK) infra/ansible/site.yml $(ARGS)

provision: converge ## another name for converge

deploy: environment ## deploy the application of this checkout (or app_source)
	@$(PLAYBOOK) infra/ansible/deploy.yml $(ARGS)

rollback: environment ## go back to the previous release, or to RELEASE=id, in seconds
	@$(PLAYBOOK) infra/ansible/rollback.yml $(if $(RELEASE),-e release=$(RELEASE)) $(ARGS)

releases: environment ## list the releases that a host holds (HOST=app)
	@$(BIN)/pergola ssh $(ENV) web sudo appctl releases

maintenance-on: environment ## answer 503 to all but health checks, until maintenance-off
	@$(PLAYBOOK) infra/ansible/maintenance.yml -e maintenance=on $(ARGS)

maintenance-off: environment ## open the site again
	@$(PLAYBOOK) infra/ansible/maintenance.yml -e maintenance=off $(ARGS)

verify: environment ## test the servers of ENV: testinfra and smoke tests, read-only
	@ENV=$(ENV) $(BIN)/pytest tests/infra tests/smoke -m "not disruptive" $(ARGS)

new-env: .venv/ready ## write an inventory: NAME=production HOST=203.0.113.7 DOMAIN=app.example.org
	@$(BIN)/pergola new-env '$(NAME)' '$(HOST)' '$(DOMAIN)' --key '$(KEY)'

# SOURCE is passed unchanged; answers given as APP_... are passed in the environment
new-app: .venv/ready ## write the inventory of a replica with your application: NAME=shop SOURCE=../shop
	@$(BIN)/pergola new-app '$(NAME)' '$(SOURCE)'

cloud-init: environment ## print the user data of a fresh server of ENV, so that converge can log in to it
	@$(BIN)/pergola cloud-init $(ENV)

##@ Inspect
.PHONY: url ca trust demo ssh logs status manage seed-data psql
url: environment ## print the base URL
	@$(SETTING) site_url

ca: environment ## print the path of the certificate authority's certificate
	@$(SETTING) secrets_authority_certificate

trust: environment ## print the command to trust that authority on this machine (Firefox: Settings, Certificates, Import)
	@file=$$($(SETTING) secrets_authority_certificate); case $$(uname) in \
		Darwin) echo "sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain '$$file'" ;; \
		*) echo "sudo install -m 644 '$$file' /usr/local/share/ca-certificates/pergola-$(ENV).crt && sudo update-ca-certificates" ;; \
		esac

demo: environment ## show in the terminal how concurrent and sequential calls wait for each other
	@url=$$($(SETTING) site_url) && authority=$$($(SETTING) secrets_authority_certificate) \
		&& $(BIN)/python app/demo.py "$$url" --ca "$$authority"

ssh: environment ## log in (HOST=app)
	@$(BIN)/pergola ssh $(ENV) all

logs: environment ## follow the journal of the application, nginx and PgBouncer
	@$(BIN)/pergola ssh $(ENV) all sudo journalctl -f -n 50 -u 'app-*' -u nginx -u pgbouncer

status: environment ## show what runs, and which release
	@$(BIN)/pergola ssh $(ENV) web app-status

manage: environment ## run a management command: CMD="createsuperuser"
	@$(BIN)/pergola ssh $(ENV) web sudo app-manage $(CMD)

seed-data: environment ## run the application's app_demo: sample data and accounts
	@[ -n "$$($(SETTING) app_demo)" ] || { echo "the application of ENV=$(ENV) has no app_demo: set it in pergola.yml beside manage.py, or in the environment" >&2; exit 1; }
	@$(DEMO)

psql: environment ## open the application's database
	@$(BIN)/pergola ssh $(ENV) database sudo -u postgres psql -d app

##@ Tests
.PHONY: lint test test-app test-runtime test-config test-pergola test-api test-migrations test-load test-infra test-smoke test-browser \
	test-runtime-host test-recovery test-releases test-servers test-machines test-fresh test-your-app test-vagrant test-ci test-full ledger
lint: .venv/ready ## ruff, mypy, ansible-lint, yamllint, shellcheck
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy pergola infra/usr/local/lib/pergola/appctl infra/usr/local/sbin/restart-outdated
	@$(BIN)/yamllint --strict .
	@PATH=$(CURDIR)/$(BIN):$$PATH ansible-lint --offline -q
	@git ls-files -z '*.sh' .ci/run tests/with-replica docs/examples/pergola-deploy-gate infra/usr/local/bin \
		infra/usr/sbin/policy-rc.d infra/usr/local/sbin/pgbouncer-switch | xargs -0 $(BIN)/shellcheck

# more processes than cores, as many of its tests wait
test-app: .venv/ready ## the sample application and the runtime's servers, without any service
	@$(BIN)/pytest -n 4 --dist worksteal tests/app $(ARGS)

# most of these wait for a Redis that is stopped or suspended
test-runtime: .venv/ready ## pergola_runtime alone, and with a Redis of its own
	@$(BIN)/pytest -n 8 --dist worksteal tests/runtime/unit $(ARGS)

test-config: .venv/ready ## settings, contracts, rendered files
	@$(BIN)/pytest -n auto --dist worksteal tests/config $(ARGS)

test-pergola: .venv/ready ## the packages pergola and appctl, of the control machine and of the host
	@$(BIN)/pytest -n auto --dist worksteal tests/appctl tests/pergola $(ARGS)

test-api: .venv/ready ## valid and invalid requests made from the API's OpenAPI document
	@$(BIN)/pytest tests/api $(ARGS)

test-migrations: .venv/ready ## linting and applying migrations, on a PostgreSQL of their own
	@$(BIN)/pytest -n auto --dist worksteal tests/migrations $(ARGS)

test-load: .venv/ready ## that the load clients count each loss, on a site with deliberate faults
	@$(BIN)/pytest -n auto tests/load $(ARGS)

test-infra: .venv/ready ## testinfra on a replica of its own
	@tests/with-replica $(BIN)/pytest tests/infra $(ARGS)

test-smoke: .venv/ready ## the site as a client sees it, on the same replica
	@tests/with-replica $(BIN)/pytest tests/smoke $(ARGS)

test-browser: .venv/ready ## every page in Chromium, on the same replica (SCREENSHOTS=dir keeps pictures)
	@tests/with-replica $(BIN)/pytest tests/browser $(ARGS)

test-runtime-host: .venv/ready ## pergola_runtime's handler compared with Django's, on the same replica (FULL=1: a soak)
	@tests/with-replica $(BIN)/pytest tests/runtime/host $(ARGS)

test-releases: .venv/ready ## releases under load (RELEASES_ROUNDS=5); killed in the middle (FULL=1: in each phase)
	@tests/with-replica $(BIN)/pytest tests/faults $(ARGS)

test-recovery: .venv/ready ## full disks, and system updates under load
	@tests/with-replica $(BIN)/pytest tests/recovery $(ARGS)

test-servers: .venv/ready ## each HTTP server deployed in turn, and Django's own handler
	@tests/with-replica $(BIN)/pytest tests/servers $(ARGS)

test: .venv/ready ## lint, app, config, pergola, infra, smoke and browser; CHANGED=1: parts that uncommitted changes make stale
	@$(PROOF) test

test-machines: .venv/ready ## machines made, killed, restored and removed
	@$(BIN)/pytest tests/machines $(ARGS)

test-fresh: .venv/ready ## the README's commands on a pristine control machine
	@$(BIN)/pytest tests/fresh $(ARGS)

test-your-app: .venv/ready ## two applications from PyPI, deployed by variables alone
	@$(BIN)/pytest tests/your_app $(ARGS)

test-vagrant: .venv/ready ## vagrant up in LXC; PROVIDER=libvirt: in an emulated machine
	@$(BIN)/pytest tests/vagrant $(ARGS)

test-ci: .venv/ready ## what CI runs
	@$(PROOF) ci

test-full: .venv/ready ## run all parts that tests/ledger.json does not show as proved (AGAIN=1: all parts)
	@$(PROOF) full

ledger: .venv/ready ## show which parts of the tests are proved, stale or were never run (TABLE=1: into tests/README.md)
	@$(PROOF) ledger

##@ Benchmark
.PHONY: bench
bench: .venv/ready ## compare the stack's speed with others', on a replica of its own (FULL=1 ONLY=hello,row CONTESTANTS= CLIENTS= PATHS= BASE=commit)
	@PERGOLA_MEMORY=6G tests/with-replica $(BIN)/python -m bench $(if $(FULL),--full) --only '$(ONLY)' --contestants '$(CONTESTANTS)' \
		--clients '$(CLIENTS)' --paths '$(PATHS)' $(if $(WEBSOCKETS),--websockets) --name '$(NAME)' --base '$(BASE)'

##@ Dependencies
.PHONY: lock settings-doc
lock: .venv/ready ## compile the hash-pinned locks (UPGRADE=1 takes newer versions)
	$(LOCK) pyproject.toml --extra uv -o requirements/uv.txt
	$(LOCK) pyproject.toml --extra app -o requirements/app.txt
	$(LOCK) runtime/pyproject.toml --extra websocket --extra migrations -c requirements/app.txt -o requirements/runtime.txt
	$(LOCK) runtime/pyproject.toml --extra settings -c requirements/app.txt -c requirements/runtime.txt -o requirements/settings.txt
	$(LOCK) runtime/pyproject.toml --extra settings-websocket -c requirements/app.txt -c requirements/runtime.txt \
		-o requirements/settings-websocket.txt
	$(LOCK) runtime/pyproject.toml --extra servers -c requirements/app.txt -c requirements/runtime.txt -o requirements/servers.txt
	$(LOCK) pyproject.toml --extra app --extra bench -c requirements/app.txt -o requirements/bench.txt
	$(LOCK) tests/your_app/silk.in -c requirements/app.txt -o tests/your_app/silk.txt
	$(LOCK) tests/runtime/host/5.2.in -c requirements/app.txt -o tests/runtime/host/5.2.txt
	$(subst 3.11,3.13,$(LOCK)) tests/runtime/host/6.1.in -o tests/runtime/host/6.1.txt
	$(LOCK) pyproject.toml --extra app --extra control --extra uv -c requirements/app.txt -o requirements/control.txt

settings-doc: .venv/ready ## write docs/settings.md from the settings and their specs
	@$(BIN)/python -m pergola.settings > docs/settings.md
