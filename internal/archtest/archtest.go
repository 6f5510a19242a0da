// Package archtest reads the Go files of a module and tells what breaks the rules
// of its shape: which package imports which, and how a file has to look. The rules
// of this module are in its test.
package archtest

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// File is one Go file, whatever system it is built for.
type File struct {
	Path      string
	Package   string // its folder
	Name      string // of its package clause
	Imports   []string
	Lines     int
	Test      bool
	Generated bool
	Comment   bool           // it has a package comment
	Functions []string       // at the top level, without methods
	Lengths   map[string]int // lines of each function; of those of one name the longest's
	Keys      []string       // names of objects that it spells out
}

// Read parses all Go files of a tree but those in testdata and hidden folders.
func Read(tree fs.FS) ([]File, error) {
	var files []File
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (d.Name()[0] == '.' || d.Name()[0] == '_' || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		f, err := parse(name, text)
		files = append(files, f)
		return err
	})
	return files, err
}

func parse(name string, text []byte) (File, error) {
	f := File{Path: name, Package: path.Dir(name), Lines: bytes.Count(text, []byte("\n")), Lengths: make(map[string]int), Test: strings.HasSuffix(name, "_test.go")}
	positions := token.NewFileSet()
	syntax, err := parser.ParseFile(positions, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return f, err
	}
	f.Name, f.Comment, f.Generated = syntax.Name.Name, syntax.Doc.Text() != "", ast.IsGenerated(syntax)
	for _, spec := range syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		f.Imports = append(f.Imports, p)
	}
	for _, decl := range syntax.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if fn.Recv == nil {
			f.Functions = append(f.Functions, fn.Name.Name)
		}
		lines := positions.Position(fn.End()).Line - positions.Position(fn.Pos()).Line + 1
		f.Lengths[fn.Name.Name] = max(f.Lengths[fn.Name.Name], lines)
	}
	ast.Inspect(syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr: // store.Key("a/" + b)
			if isKey(n.Fun) {
				f.Keys = append(f.Keys, literals(n)...)
			}
		case *ast.ValueSpec: // const a store.Key = "a"
			if isKey(n.Type) {
				f.Keys = append(f.Keys, literals(n)...)
			}
		}
		return true
	})
	return f, nil
}

func isKey(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Key" {
		return false
	}
	p, ok := s.X.(*ast.Ident)
	return ok && p.Name == "store"
}

// literals returns the text literals in a part of a file.
func literals(of ast.Node) (found []string) {
	ast.Inspect(of, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			found = append(found, l.Value)
		}
		return true
	})
	return found
}

// Rules of a module. Packages are named by their folders.
type Rules struct {
	Module string
	// Levels from the lowest. A package imports only those of lower levels.
	Levels [][]string
	// Contracts have their implementations beneath them. An implementation imports
	// what its contract may import, the contract, and what is beneath itself. Only
	// Wires and tests import one.
	Contracts []string
	Wires     []string // patterns of files (path.Match)
	// Shared packages are for the implementations of one contract.
	Shared []string
	// Tools are programs for developers: they and what is beneath them stand aside.
	Tools []string
	// Testing packages, besides those whose names end in "test", are imported by
	// tests and by each other.
	Testing []string
	// Only names all that a package may import of the module.
	Only map[string][]string
	// Homes says beneath which folder, alone, a foreign package is imported.
	Homes map[string]string
	// Keys are the folders in whose packages the names of objects are spelled out; the
	// others ask them.
	Keys []string
	// MaxLines of a file that is not generated, MaxFunction of a function in it that is no
	// test's.
	MaxLines, MaxFunction int
	// Long functions, by file and name: the lines that they may have instead.
	Long map[string]int
}

// Faults returns what breaks the rules, in order.
func (r Rules) Faults(files []File) []string {
	var faults []string
	for _, f := range files {
		for _, p := range f.Imports {
			if why := r.arrow(f, p); why != "" {
				faults = append(faults, fmt.Sprintf("%s: imports %s: %s", f.Path, p, why))
			}
		}
		for _, why := range r.shape(f) {
			faults = append(faults, f.Path+": "+why)
		}
	}
	return append(faults, r.packages(files)...)
}

// arrow tells why f may not import p; "" if it may.
func (r Rules) arrow(f File, p string) string {
	from := f.Package
	to, ours := strings.CutPrefix(p, r.Module+"/")
	switch {
	case f.Test || r.beneathAny(from, r.Tools) || r.testing(from) && !ours:
		return ""
	case !ours:
		for foreign, home := range r.Homes {
			if beneath(p, foreign) && !beneath(from, home) {
				return "its home is " + home
			}
		}
		return ""
	case r.Only[from] != nil && !slices.Contains(r.Only[from], to):
		return "all it may import of ours is " + strings.Join(r.Only[from], ", ")
	case beneath(to, from) && r.level(to) < 0 && !slices.Contains(r.Contracts, from):
		return ""
	case r.testing(to) && !r.testing(from):
		return "it is for tests"
	case r.testing(from):
		return ""
	case r.beneathAny(to, r.Tools):
		return "it is a tool"
	}
	return r.climbs(f, to)
}

func (r Rules) climbs(f File, to string) string {
	contract := r.contract(f.Package)
	if of := r.contract(to); of != "" {
		if slices.Contains(r.Shared, to) && contract == of || r.wire(f.Path) {
			return ""
		}
		return "it is an implementation of " + of + ": only its wiring and tests name it"
	}
	here, there := r.level(f.Package), r.level(to)
	if contract != "" {
		here = r.level(contract)
		if to == contract {
			return ""
		}
	}
	if here >= 0 && there >= here {
		return fmt.Sprintf("level %d is not below %d", there, here)
	}
	return ""
}

// shape tells what is wrong with a file by itself.
func (r Rules) shape(f File) []string {
	var faults []string
	if !f.Generated && f.Lines > r.MaxLines {
		faults = append(faults, fmt.Sprintf("%d lines are more than %d", f.Lines, r.MaxLines))
	}
	for _, name := range slices.Sorted(maps.Keys(f.Lengths)) {
		most := cmp.Or(r.Long[f.Path+" "+name], r.MaxFunction)
		if lines := f.Lengths[name]; !f.Generated && !f.Test && lines > most {
			faults = append(faults, fmt.Sprintf("%s has %d lines, more than %d", name, lines, most))
		}
	}
	if len(f.Keys) > 0 && !f.Test && !r.testing(f.Package) && !r.beneathAny(f.Package, slices.Concat(r.Keys, r.Tools)) {
		faults = append(faults, fmt.Sprintf("spells out the name of an object, %s: ask %s", f.Keys[0], strings.Join(r.Keys, " or ")))
	}
	if slices.Contains(f.Functions, "init") {
		faults = append(faults, "has an init function")
	}
	if !f.Test {
		return faults
	}
	export := path.Base(f.Path) == "export_test.go"
	// A command cannot be imported, so its tests may be in it.
	if !export && f.Name != "main" && !strings.HasSuffix(f.Name, "_test") {
		faults = append(faults, "tests from inside the package; make it package "+f.Name+"_test")
	}
	isTest := func(name string) bool {
		return strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") || strings.HasPrefix(name, "Benchmark")
	}
	if export && slices.ContainsFunc(f.Functions, isTest) {
		faults = append(faults, "has tests; it is there to let tests in")
	}
	return faults
}

// packages tells which packages have no place, or not one package comment.
func (r Rules) packages(files []File) []string {
	comments := make(map[string]int)
	for _, f := range files {
		if f.Test {
			continue
		}
		n := comments[f.Package]
		if f.Comment {
			n++
		}
		comments[f.Package] = n
	}
	var faults []string
	for _, p := range slices.Sorted(maps.Keys(comments)) {
		if comments[p] != 1 {
			faults = append(faults, fmt.Sprintf("%s: has %d package comments, not one", p, comments[p]))
		}
		if r.level(p) < 0 && r.contract(p) == "" && !r.testing(p) && !r.beneathAny(p, r.Tools) {
			faults = append(faults, p+": has no place in the rules")
		}
	}
	return faults
}

// level returns the level of a package, or -1.
func (r Rules) level(p string) int {
	return slices.IndexFunc(r.Levels, func(level []string) bool { return slices.Contains(level, p) })
}

// contract returns what p is an implementation of, or "".
func (r Rules) contract(p string) string {
	if r.level(p) >= 0 || r.testing(p) {
		return ""
	}
	for _, c := range r.Contracts {
		if beneath(p, c) {
			return c
		}
	}
	return ""
}

func (r Rules) testing(p string) bool {
	return strings.HasSuffix(path.Base(p), "test") || r.beneathAny(p, r.Testing)
}

func (r Rules) wire(file string) bool {
	return slices.ContainsFunc(r.Wires, func(pattern string) bool {
		ok, err := path.Match(pattern, file)
		return ok && err == nil
	})
}

func (r Rules) beneathAny(p string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return beneath(p, f) })
}

// beneath tells whether p is folder or in it.
func beneath(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }
