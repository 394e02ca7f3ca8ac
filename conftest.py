pytest_plugins = ["imagewright.pytest_plugin"]
