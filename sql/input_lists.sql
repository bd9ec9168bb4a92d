SELECT digest FROM input_lists;
