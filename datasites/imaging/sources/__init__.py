"""Where images come from: folders, archives, a PACS, arrays. Each yields units of items."""
