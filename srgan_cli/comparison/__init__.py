"""Pictures side by side: sheets and pages."""
