"""Hooks that PyInstaller runs before it looks for a module, named after the module."""
