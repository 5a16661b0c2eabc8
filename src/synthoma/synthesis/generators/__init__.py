"""Ways of making a tumor, each imported only when a plan names it."""
