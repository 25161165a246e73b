#!/usr/bin/env bash
# Cuts the shards from Debian packages: `bash cut.sh DEBS OUT`.
#
# DEBS is a folder with the .deb files that PROVENANCE.md names, OUT the folder to write. Needs
# dpkg-deb, perl, zcat and, for the two formats that have their own readers, `bible` (package
# bible-kjv) and `mod2imp` (package libsword-utils). Nothing in plesio's build or tests runs this:
# the texts are in the tree, and this file says how they came there.
set -euo pipefail
debs=${1:?folder with the .deb files}
out=${2:?folder to write}
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
mkdir -p "$out"
export LC_ALL=C.UTF-8

unpack() { # PACKAGE: sets root
  root=$unpacked/$1
  mkdir -p "$root"
  dpkg-deb -x "$debs/$1"_*.deb "$root"
}

# One line in, one line out: no trailing blanks, never two empty lines in a row, and the whole
# ends with the last full line inside the budget of bytes.
budget=${BUDGET:-225000}
finish() {
  perl -CSD -pe 's/[ \t\r]+$//' | cat -s |
    perl -ne '$n += length; print if $n <= '"$budget"
}

sword() { # PACKAGE MODULE [-s]: the module's entries on stdout, with -s without their markup
  unpack "$1"
  SWORD_PATH=$root/usr/share/sword mod2imp "$2" ${3:-}
}

# Scripture: the King James Version, one verse a line.
unpack bible-kjv-text
bible -p "$root/usr/lib" -f 'gen1:1-deu34:12' | finish > "$out/scripture.txt"

# Satire: The Devil's Dictionary, without the distribution's header and preface.
unpack dict-devil
zcat < "$root/usr/share/dictd/devil.dict.dz" | sed -n '/^ABASEMENT, n\./,/^ZOOLOGY/p' | finish > "$out/satire.txt"

# Hackers: the Jargon File, from the letter D on (its beginning is symbols and numerals).
unpack dict-jargon
zcat < "$root/usr/share/dictd/jargon.dict.dz" | sed -n '/^daemon$/,/^zorkmid$/p' | finish > "$out/hackers.txt"

# Spanish: Reina-Valera 1909, the New Testament, one verse a line.
sword sword-text-sparv spaRV1909eb -s | sed '1,/^\$\$\$Matthew 1:1$/d' |
  grep -v -e '^\$\$\$' -e '^ *$' | perl -CSD -pe 's/<[^>]*>//g; s/^\s+//' | finish > "$out/spanish.txt"

# Topics: Nave's topical index, references and headings, its markup taken off.
sword sword-dict-naves Nave | perl -CSD -ne '
  if (/^\$\$\$(.*)/) { print "\n$1\n"; next }
  s/\s+/ /g; s/<(lb\/|item)>/\n/g; s/<[^>]*>//g; s/\x{2192}/-/g; s/ +/ /g; s/^ +//mg; print "$_\n"' |
  sed '/./,$!d' | finish > "$out/topics.txt"

# Header: the C interface of SQLite, after its opening notice.
unpack libsqlite3-dev
sed '1,/^\*\/$/d' "$root"/usr/include/sqlite3.h | finish > "$out/header.txt"

# Zones: the rules and the places of the time zone database, comments dropped.
unpack tzdata
(cd "$root/usr/share/zoneinfo" && cat tzdata.zi zone1970.tab zone.tab) | grep -v '^#' | finish > "$out/zones.txt"

# Greek: the Greek lexicon of Strong's concordance: a word, its sound, whence it comes, what it means.
sword sword-dict-strongs-greek StrongsGreek | perl -CSD -ne '
  next if /^\$\$\$/;
  s/<orth type="writing">.*?<\/orth>//g; s/<pron[^>]*>(.*?)<\/pron>/{$1}/g; s/<lb\/>/ /g; s/<[^>]*>//g;
  s/\s+/ /g; s/^ //; s/ ?:?--/: /g; print "$_\n" if /\S/' | finish > "$out/greek.txt"
