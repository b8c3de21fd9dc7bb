from tokenlab.cli import main

main()
