"""Where scans come from: folders of known layouts, their catalog and splits, and in-silico patients."""
