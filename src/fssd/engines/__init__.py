"""Engines that spread work over several machines. Imports no other part of the package than its errors."""
