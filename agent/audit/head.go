package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// mark is a place in the log: after a line.
type mark struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
	File string `json:"file"`
}

var (
	errNoHead  = errors.New("the head file is missing")
	errBadHead = errors.New("the head file is damaged")
)

func headPath(dir string) string { return filepath.Join(dir, "head") }

func (m mark) encode() []byte {
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // a number and two strings
	}
	return append(data, '\n')
}

// readHead reads the head file: errNoHead if there is none, errBadHead if it is damaged,
// another error if its disk does not read it.
func readHead(dir string) (mark, error) {
	data, err := os.ReadFile(headPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, errNoHead
	}
	if err != nil {
		return mark{}, fmt.Errorf("read the head file: %w", err)
	}
	var m mark
	err = json.Unmarshal(data, &m)
	if err != nil || m.Seq < 1 || !isHash(m.Hash) || number(m.File) == 0 || string(m.encode()) != string(data) {
		return mark{}, errBadHead
	}
	return m, nil
}

// fileName is the name of the nth file, from 1.
func fileName(n int) string { return fmt.Sprintf("%06d.jsonl", n) }

var fileNames = regexp.MustCompile(`^([0-9]{6,9})\.jsonl$`)

// number is the inverse of fileName, and 0 for other names.
func number(name string) int {
	m := fileNames.FindStringSubmatch(name)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || fileName(n) != name {
		return 0
	}
	return n
}

// listFiles returns the numbers of the files in a folder, ascending.
func listFiles(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the audit log: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		if n := number(e.Name()); n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
