"""Models over HTTP: the queue of a device, the routes that existing clients call, the page."""
