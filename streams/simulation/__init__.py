"""A world to run workers in: brokers, a disk, time and chance, all drawn from one seed."""
