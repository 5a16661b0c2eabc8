"""The same patient at several dates: tumors that grow, shrink, appear and vanish, and scans that differ as scans do."""
