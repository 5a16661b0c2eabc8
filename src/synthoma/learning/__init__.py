"""What everything trained here shares: cached cases, patches, networks, losses, models, and the parts of a training loop."""
