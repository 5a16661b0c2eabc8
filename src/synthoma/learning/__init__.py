"""What everything trained here shares: cached cases, patches, networks, losses, models, and parts of a loop."""
