"""What runs on the control machine. `pergola VERB`; README.md beside this file lists the modules."""
