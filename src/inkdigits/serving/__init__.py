"""The service: HTTP, the page, monitoring, processes."""
