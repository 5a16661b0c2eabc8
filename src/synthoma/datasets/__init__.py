"""Where scans come from: folders of known layouts, their catalog, validation and splits."""
