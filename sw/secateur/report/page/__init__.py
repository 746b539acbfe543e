"""The report as one HTML file: what a path holds, the page, single figures as PDF or PNG."""
