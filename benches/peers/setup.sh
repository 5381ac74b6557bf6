#!/usr/bin/env bash
# Installs the peers for this processor into a folder: setup.sh FOLDER [JOBS]
#
# Everything comes from PyPI; llama.cpp and ik_llama.cpp are compiled here, because their prebuilt
# wheels are for a generic processor. About 1 GB of disk; 10 to 40 minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: setup.sh FOLDER [JOBS]}
jobs=${2:-$(nproc)}
mkdir -p "$folder/bin" "$folder/gguf"
cd "$folder"

install() { # install VENV WORDS…
    echo "installing: $*"
    [ -x "venv-$1/bin/python" ] || python3 -m venv "venv-$1"
    "venv-$1/bin/pip" install --quiet "${@:2}"
}

gcc -O3 -march=native -pthread "$here/probe.c" -o bin/probe
install models gguf==0.19.0 numpy
install openvino openvino-genai==2026.4.1.0 openvino-tokenizers==2026.4.1.0 numpy
export CMAKE_BUILD_PARALLEL_LEVEL=$jobs CMAKE_ARGS=-DGGML_NATIVE=ON
install llama --no-binary llama-cpp-python llama-cpp-python==0.3.36
# Attention over caches of fewer bits than f16 takes most of its build and is not measured.
export CMAKE_ARGS="$CMAKE_ARGS -DGGML_IQK_FA_ALL_QUANTS=OFF"
# Its source package lacks a file that its build runs, which writes a text about the build.
install ik scikit-build-core cmake ninja
rm -rf ik
venv-ik/bin/pip download --quiet --no-deps --no-binary :all: --no-build-isolation -d ik ik-llama-cpp-python==0.1.5
tar -C ik -xzf ik/ik_llama_cpp_python-0.1.5.tar.gz
common=ik/ik_llama_cpp_python-0.1.5/vendor/ik_llama.cpp/common
mkdir -p "$common/cmake"
echo 'configure_file("${CMAKE_CURRENT_LIST_DIR}/../build-info.cpp.in" "${CMAKE_CURRENT_LIST_DIR}/../build-info.cpp")' \
    > "$common/cmake/build-info-gen-cpp.cmake"
sed -i 's/= @BUILD_NUMBER@/= 0/' "$common/build-info.cpp.in"
install ik --no-build-isolation ./ik/ik_llama_cpp_python-0.1.5

# What a peer was not compiled for would be measured as if it could not do it.
for peer in llama ik openvino; do
    "venv-$peer/bin/python" "$here/contender.py" "$peer" --check
done
echo "bandwidth: $(bin/probe "$(nproc)") GB/s"
