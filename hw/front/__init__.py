"""From image to issued words: loader, fetcher, issue stage, addresses."""
