"""The program that runs the application's releases on a host: see cli.py."""
