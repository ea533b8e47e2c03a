"""The bundles that ship with the package; each folder beside this file is one."""
