# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What a Debian 12 machine needs, in one place; sourced by deploy/demo and tests/run.
# libevent must be 2.1.12-stable-8+deb12u1 or later (a security fix).

# shellcheck disable=SC2034  # used by those who source it
packages_build="gcc libc6-dev make cmake ninja-build pkg-config
    libevent-dev liblmdb-dev libunbound-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
    libyaml-dev libjansson-dev libssl-dev libgsasl-dev libcrypt-dev libidn2-dev libpsl-dev libzmq3-dev
    dns-root-data publicsuffix ca-certificates"
# shellcheck disable=SC2034
packages_demo="swaks openssl libnet-ssleay-perl libauthen-sasl-perl libio-socket-ssl-perl python3"
# shellcheck disable=SC2034
packages_test="clang clang-format clang-tidy libclang-rt-14-dev libcmocka-dev libsodium-dev ccache
    python3-pytest python3-pytest-xdist python3-dnspython python3-cryptography nsd ldnsutils msmtp
    spin mandoc shellcheck bash-completion iproute2 procps strace
    docker-compose python3-yaml python3-kubernetes"
# Postfix and OpenSMTPD conflict: the first is installed, the second only unpacked by its tests.
# shellcheck disable=SC2034
packages_peers="postfix libdb5.3 libevent-2.1-7 libpam0g"

packages_missing() {
    local p
    for p in "$@"; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"
    done
}

# packages_install PACKAGE...: what is missing, quietly; says what to do when it cannot.
packages_install() {
    local missing
    mapfile -t missing < <(packages_missing "$@")
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing packages: ${missing[*]}" >&2
        echo "next step: run this as root, or: apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${#missing[@]} packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq >/dev/null || true
    if ! apt-get install -y -qq --no-install-recommends "${missing[@]}" >/tmp/baton-apt.log 2>&1; then
        tail -20 /tmp/baton-apt.log >&2
        echo "next step: repair apt (see above) and run this again" >&2
        return 1
    fi
}

packages_check_libevent() {
    local have
    have=$(dpkg-query -W -f='${Version}' libevent-2.1-7 2>/dev/null || echo 0)
    if dpkg --compare-versions "$have" lt 2.1.12-stable-8+deb12u1; then
        if [ "$(id -u)" = 0 ]; then
            apt-get install -y -qq --only-upgrade libevent-2.1-7 libevent-core-2.1-7 \
                libevent-pthreads-2.1-7 libevent-dev >/tmp/baton-apt.log 2>&1 || true
            have=$(dpkg-query -W -f='${Version}' libevent-2.1-7 2>/dev/null || echo 0)
        fi
        dpkg --compare-versions "$have" ge 2.1.12-stable-8+deb12u1 ||
            echo "warning: libevent $have lacks a security fix; upgrade it from Debian's security archive" >&2
    fi
}
