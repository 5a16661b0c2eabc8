"""What draws a tumor's plan and renders its tissue; each generator is imported only when it is asked for."""
