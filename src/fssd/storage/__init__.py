"""Folders on a disk or in an object store, used in one way. Imports no other part of the package."""
