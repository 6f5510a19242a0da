package tree_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/catalog/tree"
)

// refused is an encoding that no writer of docs/format.md makes.
type refused struct {
	why   string
	bytes []byte
}

// unhex reads hexadecimal digits; ID stands for a chunk id.
func unhex(s string) []byte {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "ID", "5820"+strings.Repeat("07", 32)), " ", "")
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func table(pairs ...string) []refused {
	var out []refused
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, refused{pairs[i], unhex(pairs[i+1])})
	}
	return out
}

// badNodes are variations of 81 a2 01 4161 02 01: one file called "a".
func badNodes() []refused {
	return table(
		"nothing", "",
		"not an array", "a2 01 4161 02 01",
		"array head of two bytes", "9801 a2 01 4161 02 01",
		"array without a length", "9f a2 01 4161 02 01 ff",
		"map without a length", "81 bf 01 4161 02 01 ff",
		"map head of two bytes", "81 b802 01 4161 02 01",
		"name head of two bytes", "81 a2 01 580161 02 01",
		"name of no length", "81 a2 01 5f4161ff 02 01",
		"name as text", "81 a2 01 6161 02 01",
		"key of two bytes", "81 a2 1801 4161 02 01",
		"type in two bytes", "81 a2 01 4161 02 1801",
		"mode in five bytes", "81 a3 01 4161 02 01 03 1a000001a4",
		"user id in nine bytes", "81 a3 01 4161 02 01 04 1b00000000ffffffff",
		"reserved additional information", "81 a3 01 4161 02 01 04 1c",
		"keys not sorted", "81 a2 02 01 01 4161",
		"key twice", "81 a3 01 4161 02 01 02 01",
		"key 0", "81 a3 00 01 01 4161 02 01",
		"key 18", "81 a3 01 4161 02 01 12 01",
		"negative key", "81 a3 01 4161 02 01 20 01",
		"tag", "81 a2 01 c04161 02 01",
		"no name", "81 a1 02 01",
		"no type", "81 a1 01 4161",
		"type 0", "81 a2 01 4161 02 00",
		"type 7", "81 a2 01 4161 02 07",
		"type 257", "81 a2 01 4161 02 190101",
		"name empty", "81 a2 01 40 02 01",
		"name .", "81 a2 01 412e 02 01",
		"name ..", "81 a2 01 422e2e 02 01",
		"name with a slash", "81 a2 01 43612f62 02 01",
		"name a slash", "81 a2 01 412f 02 01",
		"name with a zero", "81 a2 01 43610062 02 01",
		"names not sorted", "82 a2 01 4162 02 01 a2 01 4161 02 01",
		"name twice", "82 a2 01 4161 02 01 a2 01 4161 02 01",
		"mode 0", "81 a3 01 4161 02 01 03 00",
		"mode of thirteen bits", "81 a3 01 4161 02 01 03 191000",
		"user id 0", "81 a3 01 4161 02 01 04 00",
		"user id of 33 bits", "81 a3 01 4161 02 01 04 1b0000000100000000",
		"group id 0", "81 a3 01 4161 02 01 05 00",
		"time zero", "81 a3 01 4161 02 01 06 820000",
		"change time zero", "81 a3 01 4161 02 01 07 820000",
		"time of one number", "81 a3 01 4161 02 01 06 8101",
		"time of three numbers", "81 a3 01 4161 02 01 06 83010101",
		"a whole second of nanoseconds", "81 a3 01 4161 02 01 06 82011a3b9aca00",
		"seconds of 64 bits", "81 a3 01 4161 02 01 06 821b800000000000000000",
		"negative seconds of 64 bits", "81 a3 01 4161 02 01 06 823b800000000000000000",
		"negative seconds in two bytes", "81 a3 01 4161 02 01 06 82380000",
		"inode 0", "81 a3 01 4161 02 01 08 00",
		"size 0", "81 a3 01 4161 02 01 09 00",
		"size of 64 bits", "81 a3 01 4161 02 01 09 1b8000000000000000",
		"negative size", "81 a3 01 4161 02 01 09 20",
		"target empty", "81 a3 01 4161 02 03 0a 40",
		"device 0", "81 a3 01 4161 02 05 0b 00",
		"link of one number", "81 a3 01 4161 02 01 0c 8101",
		"link of three numbers", "81 a3 01 4161 02 01 0c 83010101",
		"xattrs empty", "81 a3 01 4161 02 01 0d 80",
		"xattr without a value", "81 a3 01 4161 02 01 0d 814178",
		"xattrs not sorted", "81 a3 01 4161 02 01 0d 844179404178 40",
		"xattr twice", "81 a3 01 4161 02 01 0d 844178404178 40",
		"changing false", "81 a3 01 4161 02 01 0e f4",
		"changing null", "81 a3 01 4161 02 01 0e f6",
		"changing as a long simple value", "81 a3 01 4161 02 01 0e f815",
		"content empty", "81 a3 01 4161 02 01 0f 80",
		"content with a hole of no length", "81 a3 01 4161 02 01 0f 818100",
		"trees empty", "81 a3 01 4161 02 02 10 80",
		"tree id of one byte", "81 a3 01 4161 02 02 10 814107",
		"partial false", "81 a3 01 4161 02 02 11 f4",
		"fewer nodes than said", "82 a2 01 4161 02 01",
		"more nodes than said", "81 a2 01 4161 02 01 a2 01 4162 02 01",
		"a byte behind", "81 a2 01 4161 02 01 00",
		"a byte behind nothing", "80 00",
		"as many nodes as can be", "9bffffffffffffffff",
		"a map of as many keys as can be", "81 bbffffffffffffffff",
		"a name as long as can be", "81 a2 01 5bffffffffffffffff",
	)
}

// badExtents are variations of 82 8101 8201ID: a hole and a chunk of a byte each.
func badExtents() []refused {
	return table(
		"nothing", "",
		"not an array", "01",
		"array head of two bytes", "9801 8101",
		"array without a length", "9f 8101 ff",
		"extent without a length", "81 9f01ff",
		"extent of nothing", "81 80",
		"extent of four", "81 8401ID0101",
		"hole of no length", "81 8100",
		"chunk of no length", "81 8200ID",
		"list of no length", "81 8300ID01",
		"length in two bytes", "81 811801",
		"length of 64 bits", "81 811b8000000000000000",
		"negative length", "81 8120",
		"chunk of 8 MiB and a byte", "81 821a00800001ID",
		"id of 31 bytes", "81 8201581f"+strings.Repeat("07", 31),
		"id of 33 bytes", "81 82015821"+strings.Repeat("07", 33),
		"id as text", "81 82017820"+strings.Repeat("61", 32),
		"list marked 0", "81 8301ID00",
		"list marked 2", "81 8301ID02",
		"list marked true", "81 8301IDf5",
		"fewer extents than said", "82 8101",
		"a byte behind", "81 8101 00",
		"as many extents as can be", "9bffffffffffffffff",
	)
}

func TestRefused(t *testing.T) {
	if nodes, err := tree.ParseNodes(unhex("81 a2 01 4161 02 01")); err != nil || len(nodes) != 1 {
		t.Fatalf("the good one: %v", err)
	}
	for _, r := range badNodes() {
		if nodes, err := tree.ParseNodes(r.bytes); !errors.Is(err, tree.ErrFormat) || nodes != nil {
			t.Errorf("%s: %v, %v", r.why, nodes, err)
		}
	}
	if extents, err := tree.ParseExtents(unhex("82 8101 821a00800000ID")); err != nil || len(extents) != 2 {
		t.Fatalf("the good ones: %v", err)
	}
	for _, r := range badExtents() {
		if extents, err := tree.ParseExtents(r.bytes); !errors.Is(err, tree.ErrFormat) || extents != nil {
			t.Errorf("%s: %v, %v", r.why, extents, err)
		}
	}
}

// TestHugeClaims: a length that is not there costs no memory.
func TestHugeClaims(t *testing.T) {
	padding := make([]byte, 1<<16)
	for _, r := range append(badNodes(), badExtents()...) {
		b := append(r.bytes, padding...)
		if used := allocated(func() {
			tree.ParseNodes(b)   //nolint:errcheck // only what it costs
			tree.ParseExtents(b) //nolint:errcheck // only what it costs
		}); used > 2*mostMemory(len(b)) {
			t.Errorf("%s: %d bytes allocated for %d", r.why, used, len(b))
		}
	}
}
