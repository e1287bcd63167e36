"""What people and other programs read: plans, inventories, diffs and diagnostics as text. Nothing here prints."""
