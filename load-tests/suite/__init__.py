"""What `run.py` and `report.py` are made of; one subject a file. See ../README.md."""
