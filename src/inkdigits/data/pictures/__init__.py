"""Pictures whose ink is known: what a pen covers of each pixel, on print, in light, by cameras."""
