package main

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// table adds rows in columns. Columns whose heads begin with ">" are set to the
// right; columns that are empty in every row are left out.
func (p *page) table(head []string, rows [][]string) { newTable(head).add(p, rows) }

// table is rows in columns that come some at a time. It has the widths of what has come
// so far.
type table struct {
	title []string
	right []bool
	width []int
	used  []bool // by some row that has come
	begun bool
}

func newTable(head []string) *table {
	t := &table{title: make([]string, len(head)), right: make([]bool, len(head)), width: make([]int, len(head)), used: make([]bool, len(head))}
	for i, h := range head {
		t.title[i], t.right[i] = strings.CutPrefix(h, ">")
		t.width[i] = utf8.RuneCountInString(t.title[i])
	}
	return t
}

// add adds the next rows to a page, under a line of heads if they have more columns than
// those before.
func (t *table) add(p *page, rows [][]string) {
	heads := !t.begun
	t.begun = true
	for _, row := range rows {
		for i := range row {
			row[i] = safe(row[i])
			t.width[i] = max(t.width[i], utf8.RuneCountInString(row[i]))
			if row[i] != "" && !t.used[i] {
				t.used[i], heads = true, true
			}
		}
	}
	if heads {
		t.line(p, t.title)
	}
	for _, row := range rows {
		t.line(p, row)
	}
}

func (t *table) line(p *page, row []string) {
	var b strings.Builder
	for i, cell := range row {
		if !t.used[i] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("  ")
		}
		pad := strings.Repeat(" ", t.width[i]-utf8.RuneCountInString(cell))
		if t.right[i] {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	p.line("%s", strings.TrimRight(b.String(), " "))
}

// leastCell is the width that a cell keeps when a table is made to fit.
const leastCell = 12

// fitted adds a table that fits into the page: if it is too wide, columns are left out
// as spare names them, and then the widest cells are cut.
func (p *page) fitted(head []string, rows [][]string, spare ...string) {
	for p.width > 0 && tableWidth(head, rows) > p.width && len(spare) > 0 {
		if i := slices.Index(head, spare[0]); i >= 0 {
			head = slices.Delete(slices.Clone(head), i, i+1)
			for r := range rows {
				rows[r] = slices.Delete(slices.Clone(rows[r]), i, i+1)
			}
		}
		spare = spare[1:]
	}
	for p.width > 0 {
		over := tableWidth(head, rows) - p.width
		column, most := widest(rows)
		if over <= 0 || most <= leastCell {
			break
		}
		for _, row := range rows {
			row[column] = cut(row[column], max(leastCell, most-over))
		}
	}
	p.table(head, rows)
}

// cut shortens text in its middle.
func cut(s string, width int) string {
	r := []rune(safe(s))
	if len(r) <= width {
		return s
	}
	left := width / 2
	return string(r[:left]) + "…" + string(r[len(r)-(width-left-1):])
}

// widest returns the column that has the widest cell, and its width.
func widest(rows [][]string) (column, width int) {
	for _, row := range rows {
		for i, cell := range row {
			if n := utf8.RuneCountInString(safe(cell)); n > width {
				column, width = i, n
			}
		}
	}
	return column, width
}

// tableWidth is how wide a table is, as table writes it.
func tableWidth(head []string, rows [][]string) int {
	total := -2
	for i, h := range head {
		width, used := utf8.RuneCountInString(strings.TrimPrefix(h, ">")), false
		for _, row := range rows {
			width = max(width, utf8.RuneCountInString(safe(row[i])))
			used = used || row[i] != ""
		}
		if used {
			total += width + 2
		}
	}
	return total
}
