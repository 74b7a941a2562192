"""What others see of a running edge-fer: a page, its state, its health and its metrics, over HTTP."""
