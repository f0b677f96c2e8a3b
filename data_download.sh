#!/usr/bin/env bash
# Downloads or renders the course's data roots: ./data_download.sh --help
set -euo pipefail

# Default source of each set; such links may stop working. An environment variable or --from overrides them.
GSV_XS_FROM=${GSV_XS_FROM:-gdrive:1q7usSe9_5xV5zTfN-1In4DlmF5ReyU_A} # also kaggle:giovannimonco22/gsv-xs
SF_XS_FROM=${SF_XS_FROM:-gdrive:1tQqEyt3go3vMh4fj_LZrRcahoTbzzH-y}
TOKYO_XS_FROM=${TOKYO_XS_FROM:-gdrive:15QB3VNKj93027UAQWv7pzFQO1JDCdZj2}

TRIES=5                    # give up after this many connections in a row without new bytes
PAUSE_S=${VPR_PAUSE_S:-10} # seconds before the second try; each later pause is longer by as much

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if [ -x "$here/.venv/bin/python" ]; then
    PATH="$here/.venv/bin:$PATH" # gdown, too
    python=python
else
    python=python3
fi
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

usage() {
    cat <<'HELP'
./data_download.sh mini | gsv_xs | sf_xs | tokyo_xs | xs  [--to ROOT] [--from URL|FILE|DIR] [--any-size]

  mini       renders the city into data/mini: nothing is downloaded
  gsv_xs     training photos: 23 cities, 529,506 photos   -> data/xs/train
  sf_xs      San Francisco                                -> data/xs/sf_val, data/xs/sf_test
  tokyo_xs   Tokyo                                        -> data/xs/tokyo_test
  xs         all three

  --to ROOT     the data root to fill (data/mini or data/xs beside this script)
  --from ...    another source than the usual one; for xs, one that holds all three:
                  https://host/gsv_xs.zip    a file of a web server; with xs, or with a / at its end, a folder there
                                             that holds <set>.zip
                  gdrive:ID or a Drive link  a file on Google Drive, such as your own copy
                  kaggle:OWNER/NAME          a Kaggle data set, with Kaggle's own command
                  file.zip                   an archive you have; it is left where it is
                  folder                     holds <set>.zip, or the unpacked set (also another data/xs); photos
                                             become hard links, or copies where that is another disk
  --any-size    accept other numbers of photos than the published ones (a teacher's smaller mirror)

The same command continues an interrupted one, and does nothing if the set is complete. GSV_XS_FROM, SF_XS_FROM and
TOKYO_XS_FROM set the source, too. Photos are checked after unpacking; ROOT/manifest.json lists them.
HELP
}

say() { echo "== $*"; }

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

# check_value NAME VALUE: refuse what a command could take for an option. Curl's -K, for example, reads a file of options.
check_value() {
    case $2 in
    -*) fail "$1 got $2, which begins with -; write ./$2 for a file or folder of that name" ;;
    esac
}

# fail_source SET WHAT-HAPPENED: a source does not work; lists the alternatives.
fail_source() {
    local set=$1
    echo "error: $2" >&2
    {
        echo "What to do instead:"
        echo "  another day            ./data_download.sh $set   (Drive limits the downloads of a day)"
        echo "  your own copy          Drive, Make a copy, share it by link: --from gdrive:ID-OF-THE-COPY"
        echo "  a mirror of the course --from https://.../$set.zip"
        echo "  from someone's disk    --from $set.zip, or --from FOLDER"
        [ "$set" != gsv_xs ] || echo "  Kaggle has it          --from kaggle:giovannimonco22/gsv-xs"
        echo "  no download at all     ./data_download.sh mini"
    } >&2
    exit 1
}

need() { # need COMMAND WHAT-FOR HOW-TO-GET-IT
    command -v "$1" >/dev/null || fail "$2 needs $1, which is not installed; $3, or give a file or folder: --from"
}

is_zip() { "$python" -c 'import sys, zipfile; sys.exit(not zipfile.is_zipfile(sys.argv[1]))' "$1"; }

starts_as_zip() { head -c 2 "$1" | grep -q PK; }

size_of() { if [ -f "$1" ]; then wc -c <"$1"; else echo 0; fi; }

# fetch_url SET URL FILE: continue FILE until it is a complete zip. curl's own --retry would start again from where
# its call began, and lose what arrived since.
fetch_url() {
    local set=$1 url=$2 file=$3 largest=0 tries=0 restarts=0 bar=--silent before size answer status
    need curl "a download" "install it (apt install curl)"
    [ ! -t 2 ] || bar=--progress-bar
    while ! is_zip "$file"; do
        [ "$tries" -lt "$TRIES" ] ||
            fail_source "$set" "$url gives no complete zip (last: ${answer:0:3}, curl $status); $(size_of "$file") bytes are kept"
        sleep $((tries * 10#$PAUSE_S))
        before=$(size_of "$file")
        status=0
        # Less than a byte a second for a minute is a dead connection.
        answer=$(curl --fail --location --continue-at - --connect-timeout 30 --speed-limit 1 --speed-time 60 \
            "$bar" --show-error --write-out '%{http_code} %{content_type}' --output "$file" --globoff --url "$url") ||
            status=$?
        case "$status $answer" in
        "22 408"* | "22 416"* | "22 429"*) ;; # time-out, range beyond the end, too many requests
        "22 4"*) fail_source "$set" "$url answered ${answer:0:3}" ;;
        [1-4]" "*) fail_source "$set" "$url is not an address that curl can fetch" ;;
        "23 "*) fail "$file can't be written, probably because the disk is full; make room and run the same again" ;;
        *" 2"*" text/html"*)
            [ "$before" -gt 0 ] || rm -f "$file"
            fail_source "$set" "$url sent a web page, not a zip; open it in a browser to read it"
            ;;
        esac
        size=$(size_of "$file")
        if [ "$size" -gt 0 ] && ! starts_as_zip "$file"; then
            rm -f "$file"
            fail_source "$set" "$url sent a file that is not a zip"
        fi
        if [ "$size" -gt "$largest" ]; then # interrupted, or a wrong Content-Length: request the rest
            largest=$size tries=0
            continue
        fi
        tries=$((tries + 1))
        case "$status $answer" in
        "33 "* | "0 "* | "22 416"*) # the server can't continue, or has no more bytes: start again from 0
            rm -f "$file"
            [ "$restarts" -lt 2 ] || tries=$TRIES
            restarts=$((restarts + 1))
            ;;
        esac
    done
}

# fetch_drive SET ID FILE: gdown keeps a partial file beside FILE and continues it.
fetch_drive() {
    local limit="probably, today's downloads of this file are used up (or the file is no longer shared)"
    [[ $2 =~ ^[A-Za-z0-9_-]+$ ]] || fail_source "$1" "$2 is not the ID of a file on Google Drive, nor a link to one"
    need gdown "Google Drive" "run make setup (or pip install gdown)"
    gdown --continue --output "$3" -- "$2" ||
        fail_source "$1" "Google Drive refuses the file, see gdown's message; if it mentions many users: $limit"
    [ -f "$3" ] || fail_source "$1" "gdown downloaded no file: $limit"
    is_zip "$3" && return
    if starts_as_zip "$3"; then
        rm -f "$3"
        fail "gdown downloaded only a part of the file; it was removed, run the same again"
    fi
    rm -f "$3"
    fail_source "$1" "Google Drive sent a web page instead of the file: $limit"
}

# fetch_kaggle SET OWNER/NAME FILE
fetch_kaggle() {
    [[ $2 =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+$ ]] || fail_source "$1" "$2 is not a Kaggle data set, OWNER/NAME"
    need kaggle "Kaggle" "pip install kaggle, and a token of yours (Kaggle, Settings, API)"
    kaggle datasets download --path "$(dirname "$3")" -- "$2" || fail_source "$1" "Kaggle refuses $2"
    mv "$(dirname "$3")/${2##*/}.zip" "$3"
    is_zip "$3" || fail_source "$1" "the file from Kaggle is not a complete zip"
}

# download SET SOURCE ARCHIVE: ARCHIVE appears only when it is complete.
download() {
    local set=$1 source=$2 archive=$3 part=$3.part
    if [ "$(cat "$to/.download/$set.source" 2>/dev/null)" != "$source" ]; then
        rm -f "$archive" "$part"* # from another source
        printf '%s\n' "$source" >"$to/.download/$set.source"
    fi
    [ ! -f "$archive" ] || return 0
    say "fetching $set from $source"
    case "$source" in
    gdrive:*) fetch_drive "$set" "${source#gdrive:}" "$part" ;;
    kaggle:*) fetch_kaggle "$set" "${source#kaggle:}" "$part" ;;
    *://drive.google.com/*) fetch_drive "$set" "$(sed -E 's#.*(/d/|[?&]id=)([^/?&]+).*#\2#' <<<"$source")" "$part" ;;
    */) fetch_url "$set" "$source$set.zip" "$part" ;;
    *) fetch_url "$set" "$source" "$part" ;;
    esac
    mv "$part" "$archive"
}

lock() { # flock(2) through Python: macOS has no flock command. Descriptor 9 holds it until this script and curl end.
    exec 9>"$to/.download/lock"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && return
    say "another call is writing to $to: waiting for it"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}

get_set() {
    local set=$1 source=$2 status=0
    local archive=$to/.download/$set.zip
    check_value "the source of $set" "$source"
    mkdir -p "$to/.download"
    lock
    "$python" -m vpr_lib check --as "$set" ${any_size:+--any-size} -- "$to" >/dev/null || status=$?
    case $status in
    0)
        say "$set in $to is complete: nothing to do"
        return
        ;;
    3) ;; # missing
    *) exit 1 ;;
    esac
    case "$source" in
    gdrive:* | kaggle:* | *://*)
        download "$set" "$source" "$archive"
        "$python" -m vpr_lib unpack --to "$to" --as "$set" --origin="$source" --delete ${any_size:+--any-size} -- "$archive"
        rm -f "$to/.download/$set.source"
        return
        ;;
    esac
    [ -e "$source" ] || fail "no file or folder $source"
    [ ! -f "$source/$set.zip" ] || source=$source/$set.zip
    "$python" -m vpr_lib unpack --to "$to" --as "$set" ${any_size:+--any-size} -- "$source"
}

get_all() {
    local set missed=""
    case "$from" in
    gdrive:* | kaggle:* | *://drive.google.com/*) fail "$from is one set; xs needs a folder, on a disk or a web server" ;;
    "" | *://*/) ;;
    *://*) from=$from/ ;;
    *) [ -d "$from" ] || fail "$from is not a folder; for xs, give one with gsv_xs.zip, sf_xs.zip and tokyo_xs.zip" ;;
    esac
    for set in gsv_xs sf_xs tokyo_xs; do
        bash "$here/data_download.sh" "$set" --to "$to" ${from:+--from "$from"} ${any_size:+--any-size} ||
            missed="$missed $set"
    done
    [ -z "$missed" ] || fail "incomplete:$missed; the same command continues"
}

what="" to="" from="" any_size=""
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --to | --from)
        [ -n "${2:-}" ] || fail "$1 needs a value; see --help"
        check_value "$1" "$2"
        if [ "$1" = --to ]; then to=$2; else from=$2; fi
        shift
        ;;
    --any-size) any_size=yes ;;
    mini | gsv_xs | sf_xs | tokyo_xs | xs)
        [ -z "$what" ] || fail "one set at a time, or xs for all three; got $what and $1"
        what=$1
        ;;
    *) fail "unknown argument $1; valid: mini, gsv_xs, sf_xs, tokyo_xs, xs, --to, --from, --any-size, --help" ;;
    esac
    shift
done
[[ $PAUSE_S =~ ^[0-9]{1,4}$ ]] || fail "VPR_PAUSE_S is $PAUSE_S; expected whole seconds" # bash would run $(...) in it
[ -n "$what" ] || fail "which set? mini, gsv_xs, sf_xs, tokyo_xs or xs; see --help"
command -v "$python" >/dev/null || fail "Python ($python) is not installed; install 3.11 or later, then run make setup"
"$python" -c 'import vpr_lib.prepare.unpacking' || fail "$python lacks packages of the kit (see above); run make setup"

if [ "$what" = mini ]; then
    [ -z "$from$any_size" ] || fail "mini is rendered, not downloaded: it accepts only --to"
    exec "$python" -m vpr_lib city --out "${to:-$here/data/mini}"
fi
to=${to:-$here/data/xs}
case $what in
xs) get_all ;;
gsv_xs) get_set gsv_xs "${from:-$GSV_XS_FROM}" ;;
sf_xs) get_set sf_xs "${from:-$SF_XS_FROM}" ;;
tokyo_xs) get_set tokyo_xs "${from:-$TOKYO_XS_FROM}" ;;
esac
