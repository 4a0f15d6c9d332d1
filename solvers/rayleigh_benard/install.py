"""How to install Dedalus."""

INSTALL_HINT = (
    "Dedalus 3 is missing or does not load. It compiles against MPI and FFTW: "
    "apt-get install libopenmpi-dev libfftw3-dev libfftw3-mpi-dev, then "
    "CC=mpicc pip install 'gust_torch[rbc]'; "
    "or conda install -c conda-forge dedalus"
)
