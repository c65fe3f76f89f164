.PHONY: demo test check fix bench deep
demo: ; python3 dev.py demo
test: ; python3 dev.py test
check: ; python3 dev.py check
fix: ; python3 dev.py fix
bench: ; python3 dev.py bench
deep: ; python3 dev.py deep
