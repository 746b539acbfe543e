"""The pictures of the site. Each is drawn by a function without arguments that returns SVG."""
