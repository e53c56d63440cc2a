#!/bin/sh
# Installs system packages with apt-get where that is possible, and says what is left out and why. Never fails:
# what needs a package that is missing says so itself.
#
#   requirements/system.sh venv    what `make setup` needs: Python's venv module
#   requirements/system.sh test    what `make test` likes to have: real servers and tools of the other side
set -u

apt_limit_s=${APT_LIMIT_S:-300}
apt_tries=${APT_TRIES:-3}

# present NAME: whether what a package is wanted for is there already.
present() {
    case "$1" in
        python3-venv) python3 -c 'import ensurepip' 2>/dev/null ;;
        redis-server) command -v redis-server >/dev/null ;;
        postgresql) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null ;;
        dcmtk) command -v storescu >/dev/null ;;
        orthanc) command -v Orthanc >/dev/null ;;
        prometheus) command -v prometheus >/dev/null && command -v promtool >/dev/null ;;
        docker-compose) command -v docker-compose >/dev/null ;;
        orthanc-dicomweb) [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] ;;
        sqlite3) command -v sqlite3 >/dev/null ;;
        curl) command -v curl >/dev/null ;;
        systemd) command -v systemd-analyze >/dev/null ;;
        haproxy) command -v haproxy >/dev/null ;;
        chromium) command -v chromium >/dev/null ;;
        chromium-driver) command -v chromedriver >/dev/null ;;
    esac
}

case "${1:-}" in
    venv) wanted="python3-venv" ;;
    test) wanted="redis-server postgresql sqlite3 curl dcmtk orthanc orthanc-dicomweb prometheus docker-compose systemd haproxy chromium chromium-driver" ;;
    *) echo "usage: requirements/system.sh venv|test" >&2; exit 2 ;;
esac

missing=""
for package in $wanted; do
    present "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

reason=""
if [ "$(id -u)" != 0 ]; then
    reason="not root"
elif ! command -v apt-get >/dev/null; then
    reason="no apt-get here"
fi

# Debian starts a server as soon as it is installed; exit code 101 of this script forbids that for the time being.
policy=/usr/sbin/policy-rc.d
if [ -z "$reason" ] && [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
fi

apt() {
    timeout -k 10 "$apt_limit_s" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq \
        -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=60 "$@" </dev/null >/dev/null 2>&1
}

# tried COMMAND...: apt-get, again where it failed, since mirrors and networks do now and then; not where it hung.
tried() {
    try=1
    until apt "$@"; do
        code=$?
        if [ "$code" = 124 ] || [ "$try" -ge "$apt_tries" ]; then
            return "$code"
        fi
        try=$((try + 1))
        sleep 5
    done
}

if [ -z "$reason" ]; then
    echo "system packages: installing$missing"
    tried update || echo "system packages: apt-get update failed; trying with the lists that are here"
fi
left=""
for package in $missing; do
    if [ -z "$reason" ]; then
        tried install -y --no-install-recommends "$package"
        code=$?
        present "$package" && continue
        why="apt-get install ended with $code"
        [ "$code" = 124 ] && why="apt-get took longer than $apt_limit_s s"
    else
        why="$reason"
    fi
    echo "system packages: left out $package ($why)"
    left="$left $package"
done
[ -z "$left" ] || echo "system packages: tests that need them say so; by hand: apt-get install$left"
exit 0
