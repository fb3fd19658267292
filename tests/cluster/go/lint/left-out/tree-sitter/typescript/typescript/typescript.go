// Package typescript stands for a parser that is left out.
package typescript

import sitter "github.com/smacker/go-tree-sitter"

func GetLanguage() *sitter.Language { return nil }
