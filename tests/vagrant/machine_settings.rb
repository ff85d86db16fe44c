# What Vagrant makes of the Vagrantfile in the working directory, for each machine:provider, as a list in JSON.
# A provider's plugin need not be there: then its own settings are left out.
require "json"
require "vagrant"

vagrantfile = Vagrant::Environment.new(cwd: Dir.pwd).vagrantfile
found = ARGV.map do |asked|
  name, provider = asked.split(":").map(&:to_sym)
  loaded = vagrantfile.machine_config(name, provider, nil, nil, false)
  vm = loaded[:config].vm
  settings = vm.get_provider_config(provider) if Vagrant.plugin("2").manager.provider_configs.has_key?(provider)
  {
    problems: loaded[:config_errors] + loaded[:config_warnings],
    box: vm.box,
    hostname: vm.hostname,
    networks: vm.networks,
    provisioners: vm.provisioners.map { |one| [one.name, one.type, one.config.respond_to?(:limit) && one.config.limit] },
    before: loaded[:config].trigger.before_triggers.select(&:run).map { |one| [one.command, one.run.inline] },
    mounted: vm.synced_folders.reject { |_, folder| folder[:disabled] }.keys,
    settings: settings && settings.instance_variables.to_h { |key| [key[1..], settings.instance_variable_get(key)] },
  }
end
puts JSON.generate(found)
