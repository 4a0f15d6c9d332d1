#!/usr/bin/env bash
# MPI and FFTW, which Dedalus (the Rayleigh-Benard solver) compiles against. Does nothing when they are there.
set -eu
packages="libopenmpi-dev openmpi-bin libfftw3-dev libfftw3-mpi-dev"

if command -v mpicc >/dev/null && command -v mpirun >/dev/null &&
    echo '#include <fftw3-mpi.h>' | mpicc ${FFTW_PATH:+-I"$FFTW_PATH/include"} -E - >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc $packages
else
    echo "error: MPI and FFTW are missing; install them, then run make again:" >&2
    echo "  Debian, Ubuntu: sudo apt-get install $packages" >&2
    echo "  macOS:          brew install open-mpi fftw && export FFTW_PATH=\$(brew --prefix fftw)" >&2
    echo "  conda:          conda install -c conda-forge openmpi fftw='*=mpi_openmpi*' && export FFTW_PATH=\$CONDA_PREFIX" >&2
    exit 1
fi
