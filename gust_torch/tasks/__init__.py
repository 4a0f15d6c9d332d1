"""Lightning modules, their losses and logging."""
